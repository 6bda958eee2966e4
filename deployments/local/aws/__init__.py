"""An AWS organization on this machine: moto behind a gate that is as strict as AWS."""
