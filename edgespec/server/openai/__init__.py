"""OpenAI's API: chat and text completions, Responses, embeddings, models."""
