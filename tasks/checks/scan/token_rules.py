"""Rules for credentials that Kingfisher's catalogue leaves to pairs or to a provider's name beside them.

A key that stands alone still opens something, so it is found alone here. Each rule has a name, a pattern with one
group, which is the credential, and the least entropy in bits a character, below which it is a placeholder.
"""

from __future__ import annotations

# ruff: noqa: E501 - a pattern is read as one
import json
from typing import NamedTuple


class TokenRule(NamedTuple):
    """A credential's name, its pattern, and the entropy that it has at least."""

    name: str
    pattern: str
    entropy: float = 3.0


_HEX8_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ASSIGNED = r"[\w.-]{0,40}[\"'\]\s]{0,3}(?:=>|:=|=|:|,|\s)[\s\"'`]{0,4}"

TOKEN_RULES = (
    TokenRule("AWS Access Key", r"(?:^|[^A-Za-z0-9/+])((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})(?:[^A-Za-z0-9+]|$)"),
    TokenRule(
        "AWS Secret Key",
        rf"(?i)(?:aws|amazon|s3)[\w.-]{{0,20}}(?:secret|private)[\w.-]{{0,20}}key{_ASSIGNED}([a-z0-9/+]{{40}})(?:[^a-z0-9/+=]|$)",
        4.0,
    ),
    TokenRule("Stripe Test Key", r"\b((?:sk|rk)_test_[A-Za-z0-9]{24,128})\b"),
    TokenRule("Webhook Secret", r"\b(whsec_[A-Za-z0-9+/]{32,64}={0,2})(?:[^A-Za-z0-9+/]|$)", 3.5),
    TokenRule("Twilio Auth Token", rf"(?i)twilio[\w.-]{{0,20}}token{_ASSIGNED}([0-9a-f]{{32}})\b"),
    TokenRule("Mailgun Key", r"\b(key-[0-9a-f]{32})\b"),
    TokenRule("Mailchimp Key", r"\b([0-9a-f]{32}-us[0-9]{1,2})\b"),
    TokenRule("Google OAuth Client Secret", r"\b(GOCSPX-[A-Za-z0-9_-]{28})(?:[^A-Za-z0-9_-]|$)"),
    TokenRule("Google OAuth Access Token", r"\b(ya29\.[A-Za-z0-9_-]{60,512})(?:[^A-Za-z0-9_-]|$)", 3.5),
    TokenRule(
        "Azure Client Secret",
        r"(?:^|[^A-Za-z0-9_~.-])([A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?:[^A-Za-z0-9_~.-]|$)",
        3.5,
    ),
    TokenRule(
        "Azure Shared Access Signature",
        r"[?&]se=[0-9]{4}[^\s\"'<>]{0,400}[?&]sig=([A-Za-z0-9%/+]{43,60}(?:%3[Dd]|=))",
        3.5,
    ),
    TokenRule("Azure DevOps Token", r"\b([A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4})\b", 3.5),
    TokenRule(
        "Azure Shared Access Key",
        r"(?:SharedAccessKey|AccountKey|AccessKey)=([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)",
        3.5,
    ),
    TokenRule("NuGet Key", r"\b(oy2[a-z0-9]{43})\b", 3.5),
    TokenRule("crates.io Token", r"\b(cio[A-Za-z0-9]{32})\b", 3.5),
    TokenRule("Netlify Token", r"\b(nfp_[A-Za-z0-9]{36})\b"),
    TokenRule("New Relic Key", r"\b(NRAK-[A-Z0-9]{27})\b"),
    TokenRule(
        "Datadog Key",
        rf"(?i)(?:datadog|dd)[\w.-]{{0,10}}(?:api|app)[\w.-]{{0,16}}key{_ASSIGNED}([0-9a-f]{{32}}(?:[0-9a-f]{{8}})?)\b",
    ),
    TokenRule("Sentry Token", r"\b(sntrys_[A-Za-z0-9+/=_-]{80,400})", 3.5),
    TokenRule("Honeycomb Key", r"\b(hca?[a-z]?ik_[a-z0-9]{58})\b"),
    TokenRule("PagerDuty Token", rf"(?i)pager_?duty{_ASSIGNED}([a-z0-9+_-]{{20}})\b"),
    TokenRule(
        "Discord Bot Token",
        r"(?:^|[^A-Za-z0-9_.-])([MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})(?:[^A-Za-z0-9_.-]|$)",
        4.0,
    ),
    TokenRule("Discord Webhook", r"(discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60,80})", 3.5),
    TokenRule("Telegram Bot Token", r"(?:^|[^0-9A-Za-z])([0-9]{8,10}:AA[A-Za-z0-9_-]{33})(?:[^A-Za-z0-9_-]|$)", 3.5),
    TokenRule("Square Secret", r"\b(sq0(?:csp|atp)-[A-Za-z0-9_-]{22,43})(?:[^A-Za-z0-9_-]|$)", 3.5),
    TokenRule("PayPal Token", r"(access_token\$(?:production|sandbox)\$[a-z0-9]{13,20}\$[0-9a-f]{32})\b"),
    TokenRule("Plaid Token", rf"\b(access-(?:production|development|sandbox)-{_HEX8_UUID})\b"),
    TokenRule("Notion Token", r"\b(ntn_[A-Za-z0-9]{43,50}|secret_[A-Za-z0-9]{43})\b", 3.5),
    TokenRule(
        "Asana Token",
        r"(?:^|[^0-9A-Za-z/])([0-2]/[0-9]{15,17}:[0-9a-f]{32}|[0-2]/[0-9]{15,17}/[0-9]{15,17}:[0-9a-f]{32})\b",
    ),
    TokenRule("Tailscale Key", r"\b(tskey-[a-z]{3,12}-[A-Za-z0-9]{10,24}-[A-Za-z0-9]{20,40})\b"),
    TokenRule(
        "Mapbox Secret Token", r"\b(sk\.eyJ[A-Za-z0-9_-]{40,120}\.[A-Za-z0-9_-]{20,24})(?:[^A-Za-z0-9_-]|$)", 3.5
    ),
    TokenRule("Artifactory Key", r"\b(AKCp[A-Za-z0-9]{10}[A-Za-z0-9]{50,80}|cmVmdGtu[A-Za-z0-9]{56})\b", 3.5),
    TokenRule("SonarQube Token", r"\b(sq[pua]_[0-9a-f]{40})\b"),
    TokenRule("Cloudinary Address", r"(cloudinary://[0-9]{10,20}:[A-Za-z0-9_-]{20,40}@[\w-]{2,60})", 3.5),
    TokenRule("SendGrid Key", r"\b(SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50})(?:[^A-Za-z0-9_-]|$)", 3.5),
    TokenRule("npm Token", r"\b(npm_[A-Za-z0-9]{36})\b"),
    TokenRule(
        "npm Registry Token",
        r"(?:^|\n)[ \t]{0,4}(?://[\w./:-]{3,120}:)?_(?:authToken|auth|password)[ \t]?=[ \t]?[\"']?([A-Za-z0-9+/=_-]{16,200})",
    ),
    TokenRule("DigitalOcean Token", r"\b(do[opr]_v1_[0-9a-f]{64})\b"),
    TokenRule("Heroku Key", r"\b(HRKU-[A-Za-z0-9_-]{36,65})(?:[^A-Za-z0-9_-]|$)"),
    TokenRule(
        "Cloudflare Token",
        rf"(?i)(?:cloudflare|cf)[\w.-]{{0,20}}(?:token|key){_ASSIGNED}([a-z0-9_-]{{37,45}})(?:[^a-z0-9_-]|$)",
        3.5,
    ),
    TokenRule("Postman Key", r"\b(PMAK-[0-9a-f]{24}-[0-9a-f]{34})\b"),
    TokenRule(
        "Slack Token", r"\b(xox[abeoprs]-[0-9A-Za-z-]{20,250}|xapp-[0-9]-[A-Z0-9]{8,12}-[0-9]{10,14}-[0-9a-f]{64})", 3.0
    ),
    TokenRule("Zapier Webhook", r"(hooks\.zapier\.com/hooks/catch/[0-9]{4,10}/[a-z0-9]{6,12})", 2.5),
    TokenRule("Alibaba Access Key", r"\b(LTAI[A-Za-z0-9]{16,26})\b", 3.5),
    TokenRule("Tencent Secret Id", r"\b(AKID[A-Za-z0-9]{32,48})\b", 3.8),
    TokenRule("Yandex Key", r"\b(AQVN[A-Za-z0-9_-]{35,38})(?:[^A-Za-z0-9_-]|$)", 3.8),
    TokenRule(
        "Confluent or Kafka Secret",
        r"(?i)sasl[\w.]{0,20}(?:config|password)[^\n]{0,120}password=\\?[\"']([^\"'\\\s]{12,100})\\?[\"']",
        3.0,
    ),
    TokenRule("WireGuard Private Key", r"(?:^|\n)\s{0,8}PrivateKey\s{0,4}=\s{0,4}([A-Za-z0-9+/]{43}=)", 3.8),
    TokenRule(
        "PuTTY Private Key",
        r"(PuTTY-User-Key-File-[23]: [^\n]{1,80}\r?\nEncryption: none[\s\S]{0,2000}?Private-Lines: [0-9]{1,4})",
        2.0,
    ),
    TokenRule("SSH2 Private Key", r"(---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----)", 2.0),
    TokenRule(
        "Private Key",
        r"(?i)(-----BEGIN (?:[A-Z0-9]{1,12} )?PRIVATE KEY(?: BLOCK)?-----(?:\\n|\\r|[^A-Za-z0-9+/]){1,8}(?:Proc-Type|MI[A-Z]|b3BlbnNzaC1rZXkt|MC4CAQ|MC8CAQ|MFQCAQ|lQ)[A-Za-z0-9+/=:,\s\\-]{12,})",
        2.5,
    ),
    TokenRule("Dropbox Token", r"\b(sl\.(?:[uB]\.)?[A-Za-z0-9_-]{130,1500})(?:[^A-Za-z0-9_-]|$)", 3.8),
    TokenRule(
        "OpenVPN Static Key",
        r"(-----BEGIN OpenVPN Static key V1-----(?:\\n|\\r|\s){1,8}(?:[0-9a-f]{32}(?:\\n|\\r|\s){1,8}){8,})",
        2.0,
    ),
    TokenRule(
        "DNSSEC Private Key",
        r"Private-key-format: v1\.[0-9]\s[\s\S]{0,1000}?Private(?:Key|Exponent): ([A-Za-z0-9+/]{40,1400}={0,2})",
        3.8,
    ),
    TokenRule("Minisign Secret Key", r"(?:^|[^A-Za-z0-9+/])(RWRTY0Iy[A-Za-z0-9+/]{100,300}={0,2})", 4.0),
    TokenRule("Age Secret Key", r"(AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})\b", 3.5),
    TokenRule(
        "RSA Key in XML",
        r"<RSAKeyValue>[\s\S]{0,4000}?<D>\s{0,8}([A-Za-z0-9+/=\s]{80,1500})</D>",
        4.0,
    ),
    TokenRule(
        "Wallet Key",
        r"(?i)(?:accounts|private_?keys?)[\"']?\s{0,4}[:=]\s{0,4}\[\s{0,40}[\"'](?:0x)?([0-9a-f]{64})[\"']",
        3.2,
    ),
    TokenRule(
        "Wallet Mnemonic",
        r"(?i)(?:mnemonic|seed[ _-]?phrase|recovery[ _-]?phrase)[\"']?\s{0,4}[:=]\s{0,4}[\"'`]?((?:[a-z]{3,8} ){11,23}[a-z]{3,8})\b",
        3.2,
    ),
    TokenRule(
        "JSON Web Key",
        r"\"kty\"\s{0,4}:\s{0,4}\"oct\"[^{}]{0,400}?\"k\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{22,700})\"",
        3.8,
    ),
    TokenRule(
        "JSON Web Key",
        r"\"k\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{22,700})\"[^{}]{0,400}?\"kty\"\s{0,4}:\s{0,4}\"oct\"",
        3.8,
    ),
    TokenRule(
        "JSON Web Key",
        r"\"kty\"\s{0,4}:\s{0,4}\"(?:RSA|EC|OKP)\"[^{}]{0,4000}?\"d\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{40,700})\"",
        4.0,
    ),
    TokenRule(
        "JSON Web Key",
        r"\"d\"\s{0,4}:\s{0,4}\"([A-Za-z0-9_-]{40,700})\"[^{}]{0,4000}?\"kty\"\s{0,4}:\s{0,4}\"(?:RSA|EC|OKP)\"",
        4.0,
    ),
)


def as_document(rules: tuple[TokenRule, ...] = TOKEN_RULES) -> str:
    """Write the rules as Kingfisher reads them: YAML, of which JSON is a part."""
    return json.dumps(
        {
            "rules": [
                {
                    "name": rule.name,
                    "id": f"ashat.{number}",
                    "pattern": rule.pattern,
                    "min_entropy": rule.entropy,
                    "confidence": "high",
                    "pattern_requirements": {"ignore_if_contains": ["EXAMPLE", "XXXX", "xxxxxxxx", "00000000"]},
                }
                for number, rule in enumerate(rules)
            ]
        }
    )
