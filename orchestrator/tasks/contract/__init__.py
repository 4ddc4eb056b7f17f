"""The interface of a task type in four parts, which ``TaskType`` joins."""
