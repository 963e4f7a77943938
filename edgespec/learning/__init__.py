"""What drafters learn from their targets, while the user chats and from recorded answers."""
