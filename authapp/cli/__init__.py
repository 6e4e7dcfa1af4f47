"""The command line: `flask --app wsgi auth …`, `flask auth …` where embedded, and `authapp …`."""
