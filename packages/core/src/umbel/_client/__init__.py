"""The public interface's implementation: sessions, remote functions, actors, references, and the engines behind
them."""
