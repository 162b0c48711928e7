"""Say in words why OpenSSL does not trust a certificate: each cause by itself, since each has another remedy."""

from __future__ import annotations

import ssl

# OpenSSL's X509_V_ERR_*, as `ssl.SSLCertVerificationError.verify_code` has them (<openssl/x509_vfy.h>).
NOT_YET_VALID, EXPIRED, SELF_SIGNED = 9, 10, 18
UNKNOWN_AUTHORITY = (2, 19, 20, 21)
WRONG_NAME = (62, 64)
_MAY_NOT_SIGN = "was signed by one that may not sign others: have an authority sign it"
_CAUSES = {
    7: "has a signature that its authority's key did not make: it was altered, or another authority has that name",
    23: "was revoked by its authority: have a new one made",
    24: _MAY_NOT_SIGN,
    25: "was signed by an authority that may not be so far below its own: have another sign it",
    26: "is made for another purpose than a server's: have one made with the extended key usage serverAuth",
    32: _MAY_NOT_SIGN,
    34: "has a critical extension that nobody knows here: have one made without it",
    47: "is for a name for which its authority may not sign: have another authority sign it",
    48: "is for a name for which its authority may not sign: have another authority sign it",
    66: "has a key that is too short to be accepted: have one made for RSA of 2048 bits, or for P-256",
    67: "was signed by an authority whose key is too short to be accepted: have another authority sign it",
    68: "was signed with a hash that is broken, such as MD5 or SHA-1: have it signed with SHA-256",
    79: _MAY_NOT_SIGN,
}


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Say what is wrong with the certificate, after "the certificate …"; "" for a cause that has no words here.

    Its time, its names, and authorities that are not known depend on what was asked for: whoever asked says them.
    """
    return _CAUSES.get(error.verify_code, "")


# What a failed handshake without a verdict on the certificate is called in `ssl.SSLError.reason`.
_HANDSHAKES = (
    ("PROTOCOL_VERSION", "it speaks no version of TLS that is accepted here: have it speak TLS 1.2 or 1.3"),
    ("UNSUPPORTED_PROTOCOL", "it speaks no version of TLS that is accepted here: have it speak TLS 1.2 or 1.3"),
    ("CERTIFICATE_REQUIRED", "it asks for a certificate of whoever connects, and none can be given here"),
    ("UNRECOGNIZED_NAME", "it serves nothing under that name: look at its configuration of names"),
    ("DH_KEY_TOO_SMALL", "its Diffie-Hellman parameters are too short: have it use ECDHE, or parameters of 2048 bits"),
    ("HANDSHAKE_FAILURE", "it accepts no cipher that is offered here, or has no certificate: look at both there"),
    ("NO_SHARED_CIPHER", "it accepts no cipher that is offered here, or has no certificate: look at both there"),
)


def no_handshake(error: ssl.SSLError) -> str:
    """Say why a handshake failed, after "…: "; "" for a cause that has no words here."""
    reason = error.reason or ""
    return next((words for name, words in _HANDSHAKES if name in reason), "")
