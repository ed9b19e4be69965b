"""Activates the fixtures that every member's tests share: real servers, found or started."""

pytest_plugins = ["vegamite_common.testing.plugin"]
