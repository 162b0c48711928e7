"""Passwords and keys that are recognised by their names, and what only has such a name."""

from __future__ import annotations

import base64

from tests.corpus.case import HEX, Case, dumped, fault, good, letters

KIND = "passwords by name"
_PW = "Tr0ub4" + "dor-" + letters("pw", 8)
_WORD = "correct" + "horsebattery"
_BCRYPT = "$2b$12$" + letters("bc", 53)

FAULTS = {
    "in Python": ("settings.py", f'DATABASE = {{"PASSWORD": "{_PW}"}}\n'),
    "in Python, a word": ("settings.py", f"db_password = '{_WORD}'\n"),
    "in Python, with a type": ("settings.py", f'db_password: str = "{_PW}"\n'),
    "in a default of an environment variable": ("settings.py", f'password = os.environ.get("DB_PASSWORD", "{_PW}")\n'),
    "a Django key": ("settings.py", f'SECRET_KEY = "{letters("dj", 50)}"\n'),
    "in YAML": ("config.yml", f"database:\n  user: raos\n  password: {_PW}\n"),
    "in YAML, a word": ("config.yml", f"smtp:\n  password: {_WORD}\n"),
    "in JSON": ("appsettings.json", dumped({"Smtp": {"Password": _PW}})),
    "in a connection string": (
        "appsettings.json",
        dumped({"Db": f"Server=db;Database=raos;User Id=sa;Password={_PW};"}),
    ),
    "in XML": ("web.config", f"<settings><password>{_PW}</password></settings>\n"),
    "in XML, by attributes": ("app.config", f'<add key="SmtpPassword" value="{_PW}"/>\n'),
    "in properties": ("app.properties", f"spring.datasource.password={_PW}\n"),
    "in INI": ("setup.ini", f"[mail]\npassword = {_PW}\n"),
    "in TOML": ("conf.toml", f'[db]\npassword = "{_PW}"\n'),
    "in a shell script": ("run.sh", f"export PGPASSWORD={_PW}\npsql\n"),
    "as an option": ("run.sh", f"mysqldump --user=raos --password={_PW} raos\n"),
    "in a Dockerfile": ("Dockerfile", f"FROM scratch\nENV ADMIN_PASSWORD={_PW}\n"),
    "in a compose file": (
        "docker-compose.yml",
        f"services:\n  db:\n    environment:\n      - POSTGRES_PASSWORD={_PW}\n",
    ),
    "in JavaScript": ("config.js", f"module.exports = {{ apiKey: '{letters('js', 32)}' }}\n"),
    "in Java": ("Db.java", f'private static final String PASSWORD = "{_PW}";\n'),
    "in C#": ("Db.cs", f'var clientSecret = "{letters("cs", 32)}";\n'),
    "in Go": ("db.go", f'const dbPassword = "{_PW}"\n'),
    "in PHP": ("wp-config.php", f"define('DB_PASSWORD', '{_PW}');\n"),
    "in Ruby": ("config.rb", f"config.secret_key_base = '{letters('rb', 64, HEX)}'\n"),
    "in an address": ("a.py", f'URL = "postgres://raos:{letters("pg", 14)}@db.raos.net/raos"\n'),
    "of Redis, in an address": ("a.env.txt", f"REDIS_URL=redis://:{letters('rd', 20)}@cache.raos.net:6379/0\n"),
    "in the address of a git server": (
        "clone.sh",
        f"git clone https://deploy:{letters('git', 16)}@git.raos.net/x.git\n",
    ),
    "of HTTP": ("a.http", "Authorization: Basic " + base64.b64encode(f"admin:{_PW}".encode()).decode() + "\n"),
    "of a database's user": ("roles.sql", f"CREATE USER raos IDENTIFIED BY '{_PW}';\n"),
    "of PostgreSQL's role": ("roles.sql", f"ALTER ROLE raos WITH PASSWORD '{_PW}';\n"),
    "in a dump, a hash": ("dump.sql", f"INSERT INTO users VALUES (1,'admin','{_BCRYPT}');\n"),
    "in a dump, a setting": ("dump.sql", f"INSERT INTO settings VALUES (3,'smtp_password','{_PW}');\n"),
    "a Kubernetes secret": (
        "secret.yml",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ndata:\n  password: "
        + base64.b64encode(_PW.encode()).decode()
        + "\n",
    ),
}
GOOD = {
    "from the environment": ("settings.py", 'PASSWORD = os.environ["DB_PASSWORD"]\nSECRET_KEY = env("SECRET_KEY")\n'),
    "from a function": ("a.py", "password = generate_password(length=20)\ntoken = secrets.token_urlsafe(32)\n"),
    "from an attribute": ("a.js", "const password = req.body.password;\nlet token = this.authService.token;\n"),
    "a reference": (
        "config.yml",
        "password: ${DB_PASSWORD}\ntoken: {{ .Values.token }}\nsecret: $SECRET\napi_key: !vault x\n",
    ),
    "an example file": (
        "config.yml",
        "password: changeme\napi_key: your-api-key-here\nsecret: <secret>\ntoken: '********'\n",
    ),
    "labels": (
        "en.json",
        dumped({"password": "Password", "forgot_password": "Forgot your password?", "token": "Access token"}),
    ),
    "labels in German": (
        "de.json",
        dumped({"password": "Passwort", "new_password": "Neues Passwort", "secret": "Geheimnis"}),
    ),
    "a form": (
        "form.html",
        '<input type="password" name="password" autocomplete="current-password" placeholder="Password">\n',
    ),
    "types": ("types.ts", "interface Login { password: string; accessToken?: string | null; apiKey: SecretString }\n"),
    "annotations": ("a.py", "def login(password: str, token: Optional[SecretStr] = None) -> Token: ...\n"),
    "documentation": (
        "README.md",
        "Set `password` to the password of the database, `token` to a token.\nPassword: at least 12 letters\n",
    ),
    "names of fields": (
        "a.py",
        "PASSWORD_FIELD = 'user_password'\nTOKEN_HEADER = 'X-Auth-Token'\nSECRET_NAME = 'raos-db-credentials'\n",
    ),
    "routes": ("urls.py", "path('password-reset/', view, name='password_reset')\nTOKEN_URL = '/oauth/token'\n"),
    "validators": (
        "settings.py",
        "AUTH_PASSWORD_VALIDATORS = ['django.contrib.auth.password_validation.MinimumLengthValidator']\n",
    ),
    "the page's token": (
        "page.html",
        "<input type='hidden' name='csrfmiddlewaretoken' value='" + letters("csrf", 64) + "'>\n",
    ),
    "a public key": ("a.yml", "public_key: " + letters("pub", 44) + "\nprimary_key: " + letters("prim", 12) + "\n"),
    "a path to a secret": (
        "compose.yml",
        "POSTGRES_PASSWORD_FILE: /run/secrets/db_password\nsecret: /run/secrets/db\n",
    ),
    "a local address": (
        "a.py",
        "URL = 'postgres://postgres:postgres@localhost:5432/raos'\nX = 'http://user:password@example.com/'\n",
    ),
    "an address with a variable": ("a.sh", "psql postgres://raos:$DB_PASSWORD@db.raos.net/raos\n"),
    "a parser's words": (
        "lex.py",
        "TOKENS = {'token': 'IDENTIFIER', 'token_type': 'KEYWORD1', 'tokenizer': 'basic_english2'}\n",
    ),
    "a password's test": ("a.js", "if (password === 'undefined') throw new Error('password required')\n"),
    "styles": (
        "a.css",
        ".password-toggle{color:#3366ff}.token.keyword{color:#07a00b}.compass::after{content:'1234abcd5678'}\n",
    ),
    "an ARN": ("a.tf", 'secret_arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:raos-db-AbCdEf"\n'),
    "an encrypted value": ("values.yml", "password: ENC[AES256_GCM,data:" + letters("sops", 24) + "]\n"),
}

CASES: tuple[Case, ...] = (
    *(fault(KIND, name, {path: text}, "password", "secret") for name, (path, text) in FAULTS.items()),
    *(good(KIND, name, {path: text}) for name, (path, text) in GOOD.items()),
)
