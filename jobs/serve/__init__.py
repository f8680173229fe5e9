"""The door: OpenAI's video API over HTTP, in front of a batch's own directory and driver."""
