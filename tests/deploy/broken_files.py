"""Files of deploy/ that are broken on purpose, and what `doctor --url` finds about each.

Each breaks whatever its proxy can break, and asks for assertions.
"""

OPEN = {"metrics|readyz|forward-auth": "nothing"}  # to people
_OWN_SITE = {"operators' pages", "forward-auth", "X-Forwarded-For", "caching", "security headers"}
_OWN_SITE |= {"hsts"}
_APP = {"identity", "paths", "methods of visitors", "503"}
_BEYOND_TRAEFIK = {"X-Forwarded-For"}  # to which it always adds the address

_NGINX = {
    # authapp itself
    "location ~ /(metrics|readyz)(/|$) {": "location ~ /nothing$ {",
    "location ~ /forward-auth(/|$) {": "location ~ /nothing_else$ {",
    "X-Forwarded-For $remote_addr;": "X-Forwarded-For $http_x_forwarded_for;",
    "proxy_intercept_errors off;": """proxy_hide_header Content-Security-Policy;
        proxy_hide_header Strict-Transport-Security;
        proxy_hide_header Cache-Control;
        proxy_cookie_flags ~ nohttponly;""",
    # the guarded app
    "proxy_set_header Remote-Groups $remote_groups;": "",
    "$scheme://$host$request_uri": "$scheme://$http_host$uri",
    "authapp/forward-auth/nginx;": "authapp/forward-auth/nginx?assertion=1;",
    "error_page 500 = @unknown;": "",
    "    location = /forward-auth {\n        internal;": r"""
    location ~ \.css$ {
        proxy_pass http://127.0.0.1:3000;
    }
    location = /forward-auth {
        internal;
        if ($request_method = OPTIONS) {
            return 204;
        }""",
}
_CADDY = {
    **OPEN,
    "	request_header -Forwarded\n	reverse_proxy 127.0.0.1:8000\n": """
	header -Content-Security-Policy
	header -Strict-Transport-Security
	header >Cache-Control public
	header >Set-Cookie "; HttpOnly" ""
	reverse_proxy 127.0.0.1:8000 {
		header_up X-Forwarded-For {http.request.header.X-Forwarded-For}
	}
""",
    "request_header -Remote*": "",
    'request_header Connection "(?i)remote[^,]*" "close"': "",
    "forward-auth/redirect?\n": "forward-auth/redirect;assertion=1?\n",
    "		forward_auth 127.0.0.1:8000 {\n": """
		@asked {
			not path *.css
			not method OPTIONS
		}
		forward_auth @asked 127.0.0.1:8000 {
			@down status 503
			handle_response @down {
				respond 500
			}
			header_up X-Forwarded-Uri {path}
""",
}
_TRAEFIK = {
    **OPEN,
    "    http:\n": "    forwardedHeaders: { insecure: true }\n    http:\n",
    "middlewares: [strip]": "middlewares: [strip, bad]",
    "middlewares: [strip, guard]": "middlewares: [mask, guard]",
    "        authResponseHeaders:\n": """
        trustForwardHeader: true
        authResponseHeaders:
""",
    "          - Remote-Name\n          - Remote-Groups\n": "",
    "/forward-auth/redirect\n": "/forward-auth/redirect;assertion=1\n",
    "    logout: #": """
    open:
      rule: Host(`app.example.org`) && (Method(`OPTIONS`) || PathRegexp(`[.]css$`))
      service: app
    logout: #""",
    "    guard:\n": """
    mask:
      errors:
        status: ["503"]
        statusRewrites: { "503": 500 }
        service: authapp
        query: /healthz
    bad:
      headers:
        customResponseHeaders:
          Content-Security-Policy: ""
          Strict-Transport-Security: ""
          Cache-Control: public
    guard:
""",
}
_EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
_UNASKED = f'typed_per_filter_config: {{ ext_authz: {{ "@type": {_EXT_AUTHZ}, disabled: true }} }}'
_ENVOY = {
    **OPEN,
    "use_remote_address: true": "use_remote_address: false",
    "route: { cluster: authapp, timeout: 60s }\n                    - name: app": """
                          route: { cluster: authapp, timeout: 60s }
                          response_headers_to_remove:
                            [content-security-policy, strict-transport-security, cache-control]
                    - name: app""",
    "prefix: remote,": "prefix: nothing,",
    "path_prefix: /forward-auth/envoy": "path_prefix: /forward-auth/envoy;assertion=1",
    "status_on_error: { code: ServiceUnavailable }": "",
    "                        - match: { path: /forward-auth/logout }\n": f"""
                        - match: {{ safe_regex: {{ regex: ".*[.]css" }} }}
                          route: {{ cluster: app }}
                          {_UNASKED}
                        - match:
                            prefix: /
                            headers: [{{ name: ":method", string_match: {{ exact: OPTIONS }} }}]
                          route: {{ cluster: app }}
                          {_UNASKED}
                        - match: {{ path: /forward-auth/logout }}
""",
}
_HAPROXY = {
    **OPEN,
    "http-request del-header x-forwarded -m beg": "",
    "http-request set-header X-Forwarded-For %[src]": "",
    "backend authapp\n": r"""backend authapp
    http-response del-header Content-Security-Policy
    http-response del-header Strict-Transport-Security
    http-response set-header Cache-Control public
    http-response replace-header Set-Cookie (.*);.HttpOnly(.*) \1\2
""",
    "http-request del-header remote -m beg": "",
    "/forward-auth/redirect if app !logout": "/forward-auth/redirect;assertion=1 "
    "if app !logout !{ path_end .css } !{ method OPTIONS }",
    "reply:set_status(status, answer.reason)": "reply:set_status(status == 503 and 500 or status)",
    "txn.sf:pathq()": "txn.sf:path()",
}

# the texts that are replaced, and the checks that are not fine
BROKEN: dict[str, tuple[dict[str, str], set[str]]] = {
    "nginx": (_NGINX, {*_OWN_SITE, *_APP, "asked page", "query", "cookies"}),
    "caddy": (_CADDY, {*_OWN_SITE, *_APP, "Connection", "query", "cookies"}),
    "traefik": (_TRAEFIK, {*_OWN_SITE, *_APP, "session cookie", "asked page"} - _BEYOND_TRAEFIK),
    "envoy": (_ENVOY, {*_OWN_SITE, *_APP, "asked page"}),
    "haproxy": (_HAPROXY, {*_OWN_SITE, *_APP, "query", "cookies"}),
}
