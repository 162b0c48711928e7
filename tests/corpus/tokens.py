"""Credentials of the big providers, by their own forms, and what only looks like them."""

from __future__ import annotations

import base64
import json
import time

from tests.corpus.case import ALNUM, BASE32, DIGITS, HEX, LOWER, UPPER, Case, dumped, fault, good, letters, uuid

KIND = "providers' tokens"
AWS = "AKIA" + letters("aws", 16, BASE32)


def web_token(claims: dict[str, object]) -> str:
    """Make up a JSON Web Token that says `claims`."""
    parts = [json.dumps(each).encode() for each in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "." + letters("jwt", 43)


TOKENS = {
    "AWS access key": AWS,
    "AWS session key": "ASIA" + letters("asia", 16, BASE32),
    "AWS secret key": f'aws_secret_access_key = "{letters("awssecret", 40)}"',
    "GitHub token": "ghp_" + letters("ghp", 36),
    "GitHub OAuth token": "gho_" + letters("gho", 36),
    "GitHub app token": "ghs_" + letters("ghs", 36),
    "GitHub fine-grained token": f"github_pat_{letters('pat', 22)}_{letters('pat', 59)}",
    "GitLab token": "glpat-" + letters("gl", 20),
    "GitLab deploy token": "gldt-" + letters("gldt", 20),
    "Slack bot token": "-".join(("xoxb", letters("x", 12, DIGITS), letters("y", 13, DIGITS), letters("z", 24))),
    "Slack webhook": f"https://hooks.slack.com/services/T{letters('t', 8, UPPER)}/B{letters('b', 10, UPPER)}/{letters('h', 24)}",
    "Stripe live key": "sk_live_" + letters("stripe", 24),
    "Stripe restricted key": "rk_live_" + letters("stripe", 99),
    "webhook secret": "whsec_" + letters("wh", 32),
    "SendGrid key": f"SG.{letters('sg', 22)}.{letters('sg', 43)}",
    "Twilio key": "SK" + letters("twilio", 32, HEX),
    "Twilio auth token": f'TWILIO_AUTH_TOKEN="{letters("twilio2", 32, HEX)}"',
    "Mailgun key": "key-" + letters("mailgun", 32, HEX),
    "Mailchimp key": letters("mailchimp", 32, HEX) + "-us12",
    "Google API key": "AIza" + letters("google", 35),
    "Google client secret": "GOCSPX-" + letters("gocspx", 28),
    "Google access token": "ya29." + letters("ya29", 120),
    "Azure storage key": "DefaultEndpointsProtocol=https;AccountName=raos;AccountKey="
    + base64.b64encode(letters("az", 64).encode()).decode()
    + ";EndpointSuffix=core.windows.net",
    "Azure client secret": letters("azc", 3) + "8Q~" + letters("azc", 34),
    "Azure DevOps token": f"{letters('azd', 76)}AZDO{letters('azd', 4)}",
    "OpenAI key": f"sk-proj-{letters('oa', 74)}T3BlbkFJ{letters('ob', 74)}",
    "Anthropic key": f"sk-ant-api03-{letters('an', 93)}AA",
    "Hugging Face token": "hf_" + letters("hf", 34, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "npm token": "npm_" + letters("npm", 36),
    "PyPI token": "pypi-AgEIcHlwaS5vcmc" + letters("pypi", 150),
    "RubyGems key": "rubygems_" + letters("gem", 48, HEX),
    "NuGet key": "oy2" + letters("nuget", 43, LOWER),
    "Docker Hub token": "dckr_pat_" + letters("docker", 27),
    "DigitalOcean token": "dop_v1_" + letters("do", 64, HEX),
    "Heroku key": f"HEROKU_API_KEY={uuid('heroku')}",
    "Vault token": "hvs." + letters("vault", 95),
    "Terraform token": f"{letters('tf', 14)}.atlasv1.{letters('tf', 64)}",
    "Databricks token": "dapi" + letters("db", 32, HEX),
    "New Relic key": "NRAK-" + letters("nr", 27, UPPER),
    "Datadog key": f"DD_API_KEY={letters('dd', 32, HEX)}",
    "Grafana token": f"glsa_{letters('gf', 32)}_{letters('gf', 8, HEX)}",
    "Telegram token": f"{letters('tg', 10, '123456789')}:AA{letters('tg', 33)}",
    "Discord webhook": f"https://discord.com/api/webhooks/{letters('dc', 18, DIGITS)}/{letters('dc', 68)}",
    "Shopify token": "shpat_" + letters("sp", 32, HEX),
    "Square secret": "sq0csp-" + letters("sq", 43),
    "PayPal token": f"access_token$production${letters('pp', 16, LOWER)}${letters('pp', 32, HEX)}",
    "Notion token": "ntn_" + letters("ntn", 46),
    "Linear key": "lin_api_" + letters("lin", 40),
    "Figma token": "figd_" + letters("fig", 40),
    "Atlassian token": f"ATATT3{letters('at', 180)}={letters('at', 8, UPPER)}",
    "Tailscale key": f"tskey-auth-{letters('ts', 12)}-{letters('ts', 32)}",
    "SonarQube token": "sqp_" + letters("sonar", 40, HEX),
    "Cloudinary address": f"cloudinary://{letters('cl', 15, DIGITS)}:{letters('cl', 27)}@raos",
    "JSON Web Token": web_token({"sub": "42", "iss": "raos", "exp": 4_000_000_000}),
    "Supabase service key": web_token({"iss": "supabase", "role": "service_role", "iat": 1_700_000_000}),
}
_FORMS = ("{0}\n", 'api = "{0}"\n', "// {0}\nlet a = 1;\n", "<a>{0}</a>\n")
_FONT = base64.b64encode(bytes((number * number + 7 * number) % 251 for number in range(6_000))).decode()
_FULL = _FONT[:2_000] + AWS + _FONT[2_000:]

CASES: tuple[Case, ...] = (
    *(
        fault(KIND, name, {f"src/{number}.conf": _FORMS[number % len(_FORMS)].format(token)})
        for number, (name, token) in enumerate(TOKENS.items())
    ),
    fault(
        KIND,
        "Google service account",
        {
            "gcp.json": dumped(
                {
                    "type": "service_account",
                    "project_id": "raos-1",
                    "private_key": "-----BEGIN PRIVATE"
                    + f" KEY-----\n{letters('k', 64)}\n{letters('l', 64)}\n-----END PRIVATE"
                    + " KEY-----\n",
                    "client_email": "a@raos-1.iam.gserviceaccount.com",
                }
            )
        },
    ),
    good(
        KIND,
        "a font in base64 that holds the letters of a key",
        {"font.css": f"src: url(data:font/woff2;base64,{_FULL})\n"},
    ),
    good(KIND, "AWS's own example", {"README.md": "AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE\n"}),
    good(
        KIND,
        "AWS's own example secret",
        {"README.md": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY\n"},
    ),
    good(KIND, "a token of crosses", {"README.md": "export GITHUB_TOKEN=ghp_" + "x" * 36 + "\n"}),
    good(KIND, "a token of one letter", {"README.md": "export GITHUB_TOKEN=ghp_" + "a" * 36 + "\n"}),
    good(
        KIND,
        "the token of a README about JSON Web Tokens",
        {"README.md": web_token({"sub": "1234567890", "name": "John Doe", "iat": 1_516_239_022}) + "\n"},
    ),
    good(
        KIND,
        "a JSON Web Token that expired",
        {"fixture.json": dumped({"jwt": web_token({"sub": "7", "exp": int(time.time()) - 86_400})})},
    ),
    good(
        KIND,
        "the key of Supabase for browsers",
        {"app.js": f"const k = '{web_token({'iss': 'supabase', 'role': 'anon'})}'\n"},
    ),
    good(KIND, "a key that Stripe publishes", {"pay.js": f"Stripe('pk_live_{letters('pk', 24)}')\n"}),
    good(KIND, "digests", {"sums.txt": "".join(f"{letters(str(n), 64, HEX)}  file{n}.txt\n" for n in range(20))}),
    good(KIND, "integrity values", {"index.html": f'<script integrity="sha384-{letters("sri", 64)}"></script>\n'}),
    good(KIND, "commits", {"CHANGES.md": "".join(f"- {letters(str(n), 40, HEX)} a change\n" for n in range(20))}),
    good(
        KIND,
        "identifiers",
        {"ids.json": dumped({"id": uuid("a"), "account_id": letters("n", 12, DIGITS), "zone": uuid("b")})},
    ),
    good(
        KIND,
        "a name that begins as a token does",
        {"a.py": "sk_live_chart_options_for_the_dashboard = 1\nghp_something = 2\n"},
    ),
    good(KIND, "a long constant", {"a.c": f'#define ALPHABET "{ALNUM}+/"\n'}),
)
