"""Django's sessions in its cache (Redis) and its auth with the user from Postgres; no more.

Sessions are in Postgres if `SESSIONS` says so: as if their copies were missing.
"""

import json
import os
from functools import cache
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

database = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    SECRET_KEY="benchmark-" * 5,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends."
    + ("db" if os.environ.get("SESSIONS") == "postgres" else "cache"),
    PASSWORD_HASHERS=["django.contrib.auth.hashers.BCryptSHA256PasswordHasher"],  # 12 rounds
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
        }
    },
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": database.path.strip("/"),
            "USER": database.username,
            "PASSWORD": database.password,
            "HOST": database.hostname,
            "PORT": database.port,
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

from django.contrib.auth import authenticate, get_user_model, login, logout  # noqa: E402
from django.core.management import call_command  # noqa: E402


@cache
def ada():
    call_command("migrate", verbosity=0)
    user, is_new = get_user_model().objects.get_or_create(username="ada", first_name="Ada")
    if is_new:
        user.set_password("correct horse battery")
        user.save()
    return user


def log_in(request):
    login(request, ada())
    return JsonResponse({})


def log_out(request):
    if not request.user.is_authenticated:
        return JsonResponse({}, status=401)
    logout(request)
    return JsonResponse({})


def log_in_by_password(request):
    password = json.loads(request.body)["password"]
    user = authenticate(request, username="ada", password=password)
    if user is None:
        return JsonResponse({}, status=401)
    login(request, user)
    return JsonResponse({})


def me(request):
    if not request.user.is_authenticated:
        return JsonResponse({}, status=401)
    return JsonResponse({"name": request.user.first_name})


def count(request):
    if not request.user.is_authenticated:
        return JsonResponse({}, status=401)
    request.session["n"] = request.session.get("n", 0) + 1
    return JsonResponse({"n": request.session["n"]})


urlpatterns = [
    path("login", log_in),
    path("login-by-password", log_in_by_password),
    path("logout", log_out),
    path("me", me),
    path("count", count),
]
app = get_wsgi_application()
