"""What every service is made of: errors, settings, server, channel, store, grants, telemetry."""
