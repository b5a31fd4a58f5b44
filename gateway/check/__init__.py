"""``understudy check``: whether every configured system can be reached and used, and what helps."""
