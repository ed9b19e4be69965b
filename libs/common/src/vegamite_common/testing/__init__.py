"""What tests share: servers, fakes and contract suites; nothing in production imports it."""
