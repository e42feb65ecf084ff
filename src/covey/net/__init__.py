"""covey.net"""
