"""The same raw requests through bearward and the proxies that users would pick instead, and what becomes of each."""
