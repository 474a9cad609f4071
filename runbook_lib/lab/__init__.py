"""AWS on a loopback port: a lab that really moves the bytes, for learning and for CI.

The library knows it only as an endpoint URL and starts it as `python -m runbook_lib.lab`.
"""
