"""The page at `/`: files of `api/page`, served as they lie there, and what a browser may do with them."""

from pathlib import Path

from flask import Blueprint, Response, request, send_from_directory

from api.headers import ALWAYS

_FOLDER = Path(__file__).parent / "page"
# Scripts and styles are files of ours; recordings are played from us or from the browser's own memory. Text
# that came from elsewhere cannot become markup: there is no policy to make trusted types with.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_PERMISSIONS = ALWAYS["Permissions-Policy"].replace("microphone=()", "microphone=(self)")

blueprint = Blueprint("front", __name__)


@blueprint.get("/")
def first_page() -> Response:
    answer = Response((_FOLDER / "index.html").read_bytes(), mimetype="text/html")
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Permissions-Policy"] = _PERMISSIONS
    answer.add_etag()
    answer.make_conditional(request)
    return answer


@blueprint.get("/page/<name>")
def page_file(name: str) -> Response:
    """Asked for anew at every visit, by its ETag: a new release is never mixed with an old one."""
    return send_from_directory(_FOLDER, name)
