"""covey.flock"""
