"""covey.discovery"""
