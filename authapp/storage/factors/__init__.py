"""Tables of second factors and of log-ins that wait for one."""
