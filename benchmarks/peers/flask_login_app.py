"""Flask-Session, Flask-Login, the user by SQLAlchemy: as their guides say.

Sessions are in Redis, or in Postgres if `SESSIONS` says so: as if their copies were missing.
"""

import os

import bcrypt
import redis
from flask import Flask, request, session
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, scoped_session, sessionmaker

PASSWORD_HASH = bcrypt.hashpw(b"correct horse battery", bcrypt.gensalt(12))

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://")
engine = create_engine(url, pool_size=10, pool_pre_ping=True)
db = scoped_session(sessionmaker(engine))


class Base(DeclarativeBase):
    pass


class User(UserMixin, Base):
    __tablename__ = "bench_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


app = Flask(__name__)
app.secret_key = "benchmark-" * 5
if os.environ.get("SESSIONS") == "postgres":
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 10, "pool_pre_ping": True}
    app.config["SESSION_TYPE"] = "sqlalchemy"
    app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    app.config["SESSION_SQLALCHEMY_TABLE"] = "bench_sessions"
else:
    app.config["SESSION_TYPE"] = "redis"
    app.config["SESSION_REDIS"] = redis.Redis.from_url(os.environ["REDIS_URL"])
app.config["SESSION_REFRESH_EACH_REQUEST"] = False
Session(app)
logins = LoginManager(app)


@logins.user_loader
def load(user_id):
    return db.get(User, int(user_id))


@app.teardown_appcontext
def give_back(_error):
    db.remove()


@app.post("/login")
def login():
    Base.metadata.create_all(engine)
    if db.get(User, 1) is None:
        db.add(User(id=1, name="Ada"))
        db.commit()
    login_user(db.get(User, 1))
    return {}


@app.post("/login-by-password")
def login_by_password():
    user = db.get(User, 1)
    if user is None or not bcrypt.checkpw(request.json["password"].encode(), PASSWORD_HASH):
        return {}, 401
    login_user(user)
    return {}


@app.post("/logout")
@login_required
def logout():
    logout_user()
    session.clear()
    return {}


@app.get("/me")
@login_required
def me():
    return {"name": current_user.name}


@app.get("/count")
@login_required
def count():
    session["n"] = session.get("n", 0) + 1
    return {"n": session["n"]}
