"""What tests share: settings, engines, instances, waiting."""
