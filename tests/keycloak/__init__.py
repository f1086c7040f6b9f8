"""A real Keycloak, as its own project builds it: its process, its admin API, realms as vendors set theirs up."""
