"""The operator's command, `ragmesh`."""
