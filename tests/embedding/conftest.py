collect_ignore = ["shop"]  # its tests are the shop's own: `test_shop.py` here runs them
