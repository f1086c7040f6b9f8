"""Fake vendors on real loopback sockets: they answer as the vendor's document says and accept nothing else."""
