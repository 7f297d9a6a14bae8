"""Serves one OpenStack API on loopback: serve.py keystone|barbican|glance|cinder PORT ARGUMENT..."""

import os
import sys


def main() -> None:
    name, port, *arguments = sys.argv[1:]
    sys.argv = [name, *arguments]
    if name == "keystone":
        os.environ["OS_KEYSTONE_CONFIG_DIR"] = arguments[0]
        sys.argv = [name]
        from keystone.wsgi.api import application
    elif name == "barbican":
        sys.argv = [name]
        from paste.deploy import loadapp

        application = loadapp(f"config:{arguments[0]}")
        # Made at the first request otherwise: another one at the same time finds it without its rules.
        from barbican.common import policy

        policy.init()
    elif name == "glance":
        os.environ["OS_GLANCE_CONFIG_DIR"] = arguments[0]
        sys.argv = [name]
        from glance.wsgi.api import application
    else:
        try:
            from cinder.wsgi.api import application
        except ModuleNotFoundError:
            # Releases before 26.
            from cinder.wsgi.wsgi import initialize_application

            application = initialize_application()
    import waitress

    waitress.serve(application, host="127.0.0.1", port=int(port), threads=12, clear_untrusted_proxy_headers=True)


if __name__ == "__main__":
    main()
