"""The process that runs tasks or hosts one actor."""
