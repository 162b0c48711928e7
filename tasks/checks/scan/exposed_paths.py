"""What no program should answer to strangers: paths, each with what its content always has, and pages with listings.

A program that answers every path with one page shows none of them.
"""

from __future__ import annotations

import re

_ENV = re.compile(r"\A[^<]{0,4000}?^[ \t]*(export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=", re.MULTILINE)
_KEY = re.compile(r"\A\s*-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PHP = re.compile(r"\A\s*<\?php\b")
_SQLITE = re.compile(r"\ASQLite format 3\0")
_DUMP = re.compile(r"^-- (MySQL dump|MariaDB dump|PostgreSQL database dump)", re.MULTILINE)
_PACKED = re.compile(r"\A(PK\x03\x04|\x1f\S\x08)")
_DEPENDENCIES = re.compile(r'\A\s*\{[^<]*"(dependencies|devDependencies|scripts|packages|require)"\s*:')
_PASSWD = re.compile(r"^root:[^:\n]{0,200}:0:0:", re.MULTILINE)

EXPOSED = {
    "/.git/config": re.compile(r"^[ \t]*\[(core|remote |branch )", re.MULTILINE),
    "/.git/HEAD": re.compile(r"\A(ref: refs/|[0-9a-f]{40}\s*\Z)"),
    "/.env": re.compile(r"^[ \t]*(export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=", re.MULTILINE),
    "/raos.toml": re.compile(r"^[ \t]*\[raos\]", re.MULTILINE),
    "/appsettings.json": re.compile(r'\A\s*\{[^<]*"(ConnectionStrings|Logging|AllowedHosts)"\s*:'),
    "/web.config": re.compile(r"<configuration[\s>]"),
    "/docker-compose.yml": re.compile(r"^services:[ \t\r]*$", re.MULTILINE),
    "/.htpasswd": re.compile(r"^[^:\s<>]+:(\$(apr1|2[aby]|5|6)\$|\{SHA\})", re.MULTILINE),
    "/.DS_Store": re.compile(r"\A\x00\x00\x00\x01Bud1"),
    "/server-status": re.compile(r"<title>Apache Status</title>", re.IGNORECASE),
    "/phpinfo.php": re.compile(r"<title>[^<]*phpinfo\(\)", re.IGNORECASE),
    "/actuator/env": re.compile(r'"propertySources"\s*:\s*\['),
    "/debug/pprof/": re.compile(r"<title>/debug/pprof/</title>", re.IGNORECASE),
    "/.npmrc": re.compile(r"_authToken\s*="),
    "/.aws/credentials": re.compile(r"^aws_secret_access_key\s*=", re.MULTILINE),
    "/id_rsa": re.compile(r"\A\s*-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "/backup.sql": re.compile(r"^-- (MySQL dump|MariaDB dump|PostgreSQL database dump)", re.MULTILINE),
    "/console": re.compile(r"<title>[^<]*Werkzeug|Werkzeug Debugger</title>"),
    "/_profiler/": re.compile(r"<title>[^<]*Symfony Profiler", re.IGNORECASE),
    "/telescope": re.compile(r"<title>(Laravel )?Telescope( - [^<]*)?</title>"),
    "/rails/info/properties": re.compile(r"Rails version"),
    "/h2-console/": re.compile(r"<title>H2 Console</title>"),
    "/adminer.php": re.compile(r"<title>[^<]*Adminer</title>"),
    "/phpmyadmin/": re.compile(r"<title>[^<]*phpMyAdmin", re.IGNORECASE),
    "/elmah.axd": re.compile(r"Error Log for ", re.IGNORECASE),
    "/trace.axd": re.compile(r"Application Trace", re.IGNORECASE),
    "/actuator": re.compile(r'"(heapdump|env|configprops|threaddump)"\s*:\s*\{'),
    "/.env.production": _ENV,
    "/.env.local": _ENV,
    "/.env.bak": _ENV,
    "/.git/index": re.compile(r"\ADIRC\0"),
    "/.svn/entries": re.compile(r"\A[0-9]{1,3}\r?\n"),
    "/.svn/wc.db": _SQLITE,
    "/.hg/requires": re.compile(r"^(revlogv1|dotencode|fncache)\r?$", re.MULTILINE),
    "/.ssh/id_rsa": _KEY,
    "/id_ed25519": _KEY,
    "/server.key": _KEY,
    "/.bash_history": re.compile(r"\A[^<]{0,400}?^(ls|cd|sudo|vim|ssh|git|export)\b", re.MULTILINE),
    "/package.json": _DEPENDENCIES,
    "/composer.json": _DEPENDENCIES,
    "/composer.lock": _DEPENDENCIES,
    "/requirements.txt": re.compile(r"^[A-Za-z0-9._-]{1,60}\s?[=~<>]=\s?[0-9]", re.MULTILINE),
    "/Dockerfile": re.compile(r"^FROM \S+", re.MULTILINE),
    "/settings.py": re.compile(r"^(SECRET_KEY|DEBUG|DATABASES)\s?=", re.MULTILINE),
    "/wp-config.php.bak": _PHP,
    "/config.php~": _PHP,
    "/db.sqlite3": _SQLITE,
    "/database.sqlite": _SQLITE,
    "/dump.sql": _DUMP,
    "/database.sql": _DUMP,
    "/backup.zip": _PACKED,
    "/backup.tar.gz": _PACKED,
    "/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd": _PASSWD,
    "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd": _PASSWD,
    "/actuator/heapdump": re.compile(r"\AJAVA PROFILE"),
    "/actuator/configprops": re.compile(r'"beans"\s?:'),
    "/jolokia/list": re.compile(r'"java\.lang"'),
    "/jmx-console/": re.compile(r"<title>[^<]*JMX", re.IGNORECASE),
    "/debug/vars": re.compile(r'"memstats"\s?:'),
    "/json/list": re.compile(r'"webSocketDebuggerUrl"'),
    "/graphiql": re.compile(r"<title>[^<]*GraphiQL", re.IGNORECASE),
    "/graphql": re.compile(r"<title>[^<]*(GraphQL Playground|GraphiQL)", re.IGNORECASE),
    "/rails/info/routes": re.compile(r"Controller#Action"),
    "/rails/mailers": re.compile(r"<title>Mailer Previews"),
    "/sidekiq": re.compile(r"<title>[^<]*Sidekiq"),
    "/horizon": re.compile(r"<title>Horizon( - [^<]*)?</title>"),
    "/flower": re.compile(r"<title>Flower</title>"),
    "/nginx_status": re.compile(r"^Active connections: [0-9]", re.MULTILINE),
    "/status": re.compile(r"^pool: +\S+\r?\nprocess manager:", re.MULTILINE),
    "/@vite/client": re.compile(r"createHotContext|/@vite/env"),
    "/webpack-dev-server": re.compile(r"<title>[^<]*webpack-dev-server|Assets Report:"),
}
# Meant for those who run the program; often shown to everybody without a thought.
METRICS = {"/metrics": re.compile(r"^# (HELP|TYPE) [a-zA-Z_:]", re.MULTILINE)}
LISTED = ("/", "/Modules/", "/static/", "/uploads/", "/media/", "/files/", "/assets/", "/backup/")
LISTING = re.compile(
    r"<title>\s?(index of|directory listing for|listing directory|files within|directory:) ?"
    r"(/|[^<\s]{0,400}/\s?</title>)"
    r"|<title>\s?directory listing for \[|\[To Parent Directory\]"
    r"|<div id=\"summary\">\s?<span class=\"meta-item\">",
    re.IGNORECASE,
)
# What a page has while its program runs for its developers.
TOOLBAR = re.compile(
    r"<[a-z]+ id=[\"']djDebug[\"']|\bclass=[\"']sf-toolbar\b|\bclass=[\"']phpdebugbar\b|\"buildId\":\"development\""
    r"|<script[^>]{0,100} src=[\"']/@vite/client[\"']|/browser-sync/browser-sync-client|\blivereload\.js\?port="
)
