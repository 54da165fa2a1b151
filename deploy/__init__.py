"""Starting and watching the service on one machine: the `ananse` command. What happens inside the processes
it starts is theirs."""
