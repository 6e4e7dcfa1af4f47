"""`Config.from_env()`: settings from the environment; see `authapp/config.py` for all of them."""

from authapp.config import Config

__all__ = ["Config"]
