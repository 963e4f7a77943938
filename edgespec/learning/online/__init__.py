"""Online adaptation: the drafter learns from what the target says while the user chats."""
