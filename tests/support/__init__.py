"""The parts that tests share: settings, people, services, servers, waiting."""
