"""What every package of the service uses: identifiers, pages of lists, formats, notifications, traces, counters."""
