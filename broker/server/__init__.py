"""The shell around the core: settings, listeners, sockets, timers, alarms, signals and logs."""
