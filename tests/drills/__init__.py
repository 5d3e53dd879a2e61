"""Drills: a real Postgres cluster and a NATS server lose machines, disks and data under load."""
