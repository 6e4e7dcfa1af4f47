"""Settings from the environment: `Config.from_env()`. Defaults and checks are in `authapp/config.py`."""

from authapp.config import Config as Config
