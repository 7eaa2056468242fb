"""pyinfra's configuration: it reads this before it connects."""

from pyinfra.context import config

from tasks.lib import connection, speed

# Every measure changes the system. (`SUDO = True` alone does nothing here.)
config.SUDO = True
config.CONNECT_TIMEOUT = 20

connection.install()
speed.install()
