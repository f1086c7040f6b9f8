"""The certified authorization server `oidc-provider` (npm), as a process, and the clients that are registered there."""
