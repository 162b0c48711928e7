"""Which view answers where."""

from django.urls import path
from notices import views

urlpatterns = [
    path("", views.board),
    path("health", views.health),
    path("notices", views.notices),
]
