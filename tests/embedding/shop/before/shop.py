"""A small shop: visitors fill a cart, people sign up, log in and order."""

from flask import Flask, flash, redirect, render_template_string, session, url_for
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from flask_migrate import Migrate
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect, FlaskForm
from redis import Redis
from werkzeug.security import check_password_hash, generate_password_hash
from wtforms import EmailField, PasswordField
from wtforms.validators import InputRequired, Length

db = SQLAlchemy()
logins = LoginManager()
logins.login_view = "login"

PAGE = """
{% for message in get_flashed_messages() %}<p class="flash">{{ message }}</p>{% endfor %}
<p>{{ current_user.email if current_user.is_authenticated else "Nobody" }}</p>
{% if form %}
<form method="post">{{ form.hidden_tag() }}{{ form.email }}{{ form.password }}</form>
{% endif %}
<ul>{% for item in items %}<li>{{ item }}</li>{% endfor %}</ul>
"""


class User(UserMixin, db.Model):
    id = db.Column(db.Integer, primary_key=True)
    email = db.Column(db.String(200), unique=True, nullable=False)
    password_hash = db.Column(db.String(200), nullable=False)


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.ForeignKey("user.id"), nullable=False)
    items = db.Column(db.JSON, nullable=False)


@logins.user_loader
def load_user(user_id):
    return db.session.get(User, user_id)


class Credentials(FlaskForm):
    email = EmailField(validators=[InputRequired()])
    password = PasswordField(validators=[InputRequired(), Length(min=15)])


def create_app(**settings):
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config.from_mapping(settings)
    app.config["SESSION_REDIS"] = Redis.from_url(app.config["REDIS_URL"])
    db.init_app(app)
    Migrate(app, db)
    Session(app)
    logins.init_app(app)
    CSRFProtect(app)

    @app.get("/")
    def cart():
        return render_template_string(PAGE, items=session.get("cart", []))

    @app.post("/cart/<item>")
    def add(item):
        session["cart"] = [*session.get("cart", []), item]
        flash(f"{item} is in your cart")
        return redirect(url_for("cart"))

    @app.route("/signup", methods=["GET", "POST"])
    def signup():
        form = Credentials()
        if form.validate_on_submit():
            hashed = generate_password_hash(form.password.data)
            db.session.add(User(email=form.email.data, password_hash=hashed))
            db.session.commit()
            return redirect(url_for("login"))
        return render_template_string(PAGE, form=form)

    @app.route("/login", methods=["GET", "POST"])
    def login():
        form = Credentials()
        if form.validate_on_submit():
            user = User.query.filter_by(email=form.email.data).first()
            if user and check_password_hash(user.password_hash, form.password.data):
                login_user(user)
                return redirect(url_for("cart"))
            flash("Wrong email or password")
        return render_template_string(PAGE, form=form)

    @app.post("/logout")
    def logout():
        logout_user()
        flash("Goodbye")
        return redirect(url_for("cart"))

    @app.post("/orders")
    @login_required
    def order():
        db.session.add(Order(user_id=current_user.id, items=session.pop("cart", [])))
        db.session.commit()
        return redirect(url_for("orders"))

    @app.get("/orders")
    @login_required
    def orders():
        mine = Order.query.filter_by(user_id=current_user.id)
        return render_template_string(PAGE, items=[item for order in mine for item in order.items])

    return app
