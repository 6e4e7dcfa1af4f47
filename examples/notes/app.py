"""Notes of people who are signed in: a small Flask app with authapp in it.

`make example` starts it on PostgreSQL and Valkey of its own: http://127.0.0.1:5000. Without make:

    authapp dev sh -c 'authapp db upgrade && SIGNUP=open flask --app examples/notes/app run'
"""

import os

from flask import Flask, flash, redirect, render_template_string, request, url_for
from sqlalchemy import ForeignKey, create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from authapp import Auth, Config, User, current_user, login_required

PAGE = """
<!doctype html><html lang="en"><title>Notes</title>
<h1>Notes of {{ current_user.name or current_user.email }}</h1>
{% for message in get_flashed_messages() %}<p>{{ message }}</p>{% endfor %}
<ul>{% for note in notes %}<li>{{ note.text }}</li>{% else %}<li>None yet.</li>{% endfor %}</ul>
<form method="post"><label>New note <input name="text" required></label> <button>Add</button></form>
<p><a href="{{ url_for('authapp.pages.account') }}">Your account</a></p>
"""


class Base(DeclarativeBase):
    """Tables of this app. Those of authapp are in a schema of their own."""


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), nullable=False)
    text: Mapped[str]


app = Flask(__name__)
Auth(app, Config.from_env(), url_prefix="/auth", pages=True)
url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg2")
engine = create_engine(url)
Base.metadata.create_all(engine)


@app.get("/")
@login_required
def notes() -> str:
    with Session(engine) as db:
        mine = db.scalars(select(Note).where(Note.user_id == current_user.id)).all()
    return render_template_string(PAGE, notes=mine)


@app.post("/")
@login_required
def add():
    with Session(engine) as db, db.begin():
        db.add(Note(user_id=current_user.id, text=request.form["text"]))
    flash("Your note is kept.")
    return redirect(url_for("notes"))
