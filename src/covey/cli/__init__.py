"""covey.cli"""
