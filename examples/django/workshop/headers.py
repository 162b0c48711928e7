"""What Django 5 does not add by itself."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

View = Callable[[HttpRequest], HttpResponse]


def content_security_policy(answer: View) -> View:
    """Let pages load nothing from elsewhere."""

    def guarded(request: HttpRequest) -> HttpResponse:
        response = answer(request)
        response["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        return response

    return guarded
