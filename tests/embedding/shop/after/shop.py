"""A small shop: visitors fill a cart, people sign up, log in and order."""

from flask import Flask, flash, redirect, render_template_string, session, url_for
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect, FlaskForm
from wtforms import EmailField, PasswordField
from wtforms.validators import InputRequired, Length

from authapp import Auth, User, current_user, login_required
from authapp.errors import InvalidCredentials

db = SQLAlchemy()
auth = Auth()

PAGE = """
{% for message in get_flashed_messages() %}<p class="flash">{{ message }}</p>{% endfor %}
<p>{{ current_user.email if current_user.is_authenticated else "Nobody" }}</p>
{% if form %}
<form method="post">{{ form.hidden_tag() }}{{ form.email }}{{ form.password }}</form>
{% endif %}
<ul>{% for item in items %}<li>{{ item }}</li>{% endfor %}</ul>
"""


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.ForeignKey(User.id), nullable=False)
    items = db.Column(db.JSON, nullable=False)


class Credentials(FlaskForm):
    email = EmailField(validators=[InputRequired()])
    password = PasswordField(validators=[InputRequired(), Length(min=15)])


def create_app(**settings):
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config.from_mapping(settings)
    app.config["LOGIN_VIEW"] = "login"
    db.init_app(app)
    Migrate(app, db)
    auth.init_app(app)
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
            auth.users.create(form.email.data, form.password.data)
            return redirect(url_for("login"))
        return render_template_string(PAGE, form=form)

    @app.route("/login", methods=["GET", "POST"])
    def login():
        form = Credentials()
        if form.validate_on_submit():
            try:
                auth.log_in(form.email.data, form.password.data)
                return redirect(url_for("cart"))
            except InvalidCredentials:
                flash("Wrong email or password")
        return render_template_string(PAGE, form=form)

    @app.post("/logout")
    def logout():
        auth.log_out()
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
