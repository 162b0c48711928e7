"""What is kept."""

from django.db import models


class Notice(models.Model):
    """A notice, and who pinned it."""

    text = models.CharField(max_length=200)
    author = models.CharField(max_length=80)
    pinned_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
