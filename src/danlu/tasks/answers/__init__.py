"""What tasks share that have the same kind of answer; none of these is a task by itself."""
