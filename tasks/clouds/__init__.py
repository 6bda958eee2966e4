"""The only place that talks to AWS and Azure: read (async, raw), and write (careful, by SDK)."""
