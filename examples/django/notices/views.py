"""What the board answers."""

import os

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from workshop import VERSION

from notices.models import Notice


@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Ask the database for nothing much."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok", "version": VERSION, "bundle": os.environ.get("ASHAT_BUNDLE")})


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """Show the board."""
    return render(request, "board.html", {"notices": Notice.objects.all()[:20]})


@require_safe
def notices(request: HttpRequest) -> JsonResponse:
    """List the newest notices."""
    return JsonResponse({"notices": list(Notice.objects.values("id", "text", "author")[:20])})
