"""What was asked for is refused: grant, scope, audience, user, session."""

from collections.abc import Iterator

from ...tokens.credential import TOKEN_EXCHANGE, TokenEndpoint
from ...tokens.failure import Reason
from .evidence import Evidence, Suggestion


def about_grants(evidence: Evidence) -> Iterator[Suggestion]:
    """What the OAuth error and its words tell."""
    match evidence.reason:
        case Reason.PASSWORD_REFUSED:
            yield from _password(evidence)
        case Reason.SESSION_LIMIT:
            yield Suggestion(
                75,
                "the user has as many sessions as are allowed, perhaps left by killed processes.",
                "end them there, or wait; then logout_url and max_sessions.",
            )
        case Reason.REFUSED:
            yield from _refused(evidence)
    if evidence.reason in {Reason.REFUSED, Reason.PASSWORD_REFUSED, Reason.NO_TOKEN}:
        yield from _account(evidence)


def _password(evidence: Evidence) -> Iterator[Suggestion]:
    if evidence.is_said("fully set up|required action|verify"):
        yield Suggestion(
            92,
            "the account waits for its owner: a first password, a mail to confirm, new terms.",
            "log in once as this username in a browser, and do what is asked.",
        )
    if evidence.is_said(r"\bmfa\b|multi.?factor|\botp\b|totp|second factor|aadsts5007"):
        yield Suggestion(
            92,
            "the user has to show a second factor, which no program can.",
            "username: an account without one; or grant_type: client_credentials.",
        )
    if evidence.is_said("lock|disabled|suspend|too many|temporar|blocked"):
        yield Suggestion(
            91,
            "the account is locked, perhaps by attempts before this one.",
            "have it unlocked, or wait; do not try again before: each attempt may prolong it.",
        )
    elif evidence.code == "invalid_grant" or not evidence.code:
        origin = evidence.endpoint.password.origin if evidence.endpoint and evidence.endpoint.password else ""
        yield Suggestion(
            70,
            "username or password is wrong.",
            f"password (now from {origin}) and username: check both, and try once; accounts get locked.",
        )
        if evidence.is_keycloak:
            yield Suggestion(
                40, "the user is of another realm, or the account is locked.", "token_url: check the realm."
            )


def _refused(evidence: Evidence) -> Iterator[Suggestion]:
    endpoint = evidence.endpoint
    if endpoint is None or evidence.status in {404, 405}:
        return
    match evidence.code:
        case "invalid_scope":
            yield _scope(endpoint, 93)
        case "unsupported_grant_type":
            yield Suggestion(
                85,
                f"the token endpoint knows no grant {endpoint.grant_type}.",
                "grant_type: as the vendor's document has it.",
            )
            yield _unread(endpoint, 60)
        case "unauthorized_client":
            is_told = evidence.is_said("not (enabled|allowed|authori[sz]ed|permitted)|service account|direct access")
            yield Suggestion(
                90 if is_told else 60 if evidence.is_keycloak else 74,
                f"the client may not use the grant {endpoint.grant_type}{_in_keycloak(evidence)}.",
                "allow it to the client at the identity provider; or grant_type: another.",
            )
        case "invalid_target" | "access_denied":
            yield Suggestion(
                85,
                "the resource or audience is unknown, or closed to this client.",
                "params.audience or params.resource: check it; and the client's rights.",
            )
        case "invalid_grant":
            yield from _invalid_grant(endpoint)
        case "invalid_request":
            yield from _invalid_request(evidence, endpoint)
    if "proof beside it" in evidence.failure.detail:
        yield Suggestion(
            90,
            "the client is set up for tokens that are bound to a key (DPoP).",
            "set the client up for bearer tokens; or inject.format, to send it all the same.",
        )
    if "of the answer says no" in evidence.failure.detail:
        yield Suggestion(
            55,
            "the vendor refuses; the answer above says why in its own words.",
            "check client_id, client_secret and params; and that response.refusal is right.",
        )
    yield Suggestion(
        20,
        "the request differs from what the vendor's document asks for.",
        "compare what was sent, above: token_url, grant_type, client_auth, send, params.",
    )


def _in_keycloak(evidence: Evidence) -> str:
    if not evidence.is_keycloak or evidence.endpoint is None:
        return ""
    names = {"client_credentials": "service accounts roles", "password": "direct access grants"}
    name = names.get(evidence.endpoint.grant_type)
    return f" (in Keycloak: {name})" if name else ""


def _scope(endpoint: TokenEndpoint, weight: int) -> Suggestion:
    if endpoint.scope is None:
        return Suggestion(weight, "a scope is required.", "scope: one that the client may have.")
    return Suggestion(
        weight,
        "a scope is unknown, misspelt, or not given to this client.",
        "scope: check each; or give it to the client.",
    )


def _unread(endpoint: TokenEndpoint, weight: int) -> Suggestion:
    other = "json" if endpoint.send == "form" else "form"
    return Suggestion(weight, f"the parameters are not read where they are ({endpoint.send}).", f"send: {other}")


def _invalid_grant(endpoint: TokenEndpoint) -> Iterator[Suggestion]:
    if endpoint.grant_type == "refresh_token":
        yield Suggestion(
            85,
            "the refresh token is spent, too old, or of another client.",
            "refresh_token: get a new one; where they rotate, token_store keeps the latest.",
        )
    elif endpoint.grant_type == TOKEN_EXCHANGE:
        yield Suggestion(
            80,
            "the subject token has expired, or is not accepted from this client.",
            "subject_token and subject_token_type: check what they name.",
        )


def _invalid_request(evidence: Evidence, endpoint: TokenEndpoint) -> Iterator[Suggestion]:
    if evidence.is_said("grant.?type"):
        yield _unread(endpoint, 88 if endpoint.send != "form" else 60)
        if endpoint.grant_type == "none":
            yield Suggestion(89, "a grant type is required.", "grant_type: as the vendor's document has it.")
    if evidence.is_said("scope"):
        yield _scope(endpoint, 82)
    for name in ("audience", "resource"):
        if evidence.is_said(rf"\b{name}\b") and not evidence.signs:
            verb = "wrong" if name in endpoint.params else "missing"
            yield Suggestion(84, f"the parameter {name} is {verb}.", f"params.{name}: as the vendor's document says.")
    yield Suggestion(
        50,
        "a parameter is missing, superfluous or misspelt; the answer above may say which.",
        "params: as the vendor's document has them.",
    )


def _account(evidence: Evidence) -> Iterator[Suggestion]:
    is_missing = r"user.?id|user.?name.*(missing|required)|on behalf|impersonat|account.?(id|type)|sub.?account"
    if evidence.credential.principal is None and evidence.code != "invalid_grant" and evidence.is_said(is_missing):
        yield Suggestion(
            87,
            "the token has to be for one user or account, and none is named.",
            "principal: {header: NAME}, with {principal} in params; or the fixed one in params.",
        )
